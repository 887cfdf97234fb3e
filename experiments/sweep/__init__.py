"""Many runs from one command: which there are, who works on them, and what is seen of it."""
