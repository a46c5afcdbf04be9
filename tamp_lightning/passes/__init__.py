"""The Lightning half: passes over the decoder blocks, one epoch a block."""
