"""What a run leaves on the disk: its folder, its checkpoint files, what it was made with."""
