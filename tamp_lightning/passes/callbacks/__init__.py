"""What watches and changes a block while a pass runs."""
