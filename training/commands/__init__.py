"""The commands of `python -m training`, one a module; `training.command_line` lists them."""
