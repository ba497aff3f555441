"""What a container has changed: listed, made an image of, or exported with everything else."""
