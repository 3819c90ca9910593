"""Motion World: drawn videos with exact labels, for a world in which no data set can be had."""
