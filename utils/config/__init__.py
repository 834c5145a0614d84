"""From the command line and a JSON file to checked settings."""
