"""What a run saves, in which files, and how it goes on from them."""
