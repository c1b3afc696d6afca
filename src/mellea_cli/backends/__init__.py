"""How to talk to one kind of model server."""
