"""What a run takes on machines that are not here: compiled for them by their own compilers."""
