"""What a person sees at the end of a run."""
