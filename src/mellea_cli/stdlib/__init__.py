"""Names where the reference library has them: most live in `mellea_cli.session`."""
