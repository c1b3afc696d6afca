"""What is asked about an item: steps, their templates and their output types."""
