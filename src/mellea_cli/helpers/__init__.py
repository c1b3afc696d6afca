"""Names where the reference library's tutorial imports them from; they live in `mellea_cli.session`."""
