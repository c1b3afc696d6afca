"""A conversation that is kept: its turns, its file, what it knows, and the slash commands. Not the screen."""
