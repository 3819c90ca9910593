"""The five papers in miniature: every system and baseline on Motion World, and a report."""
