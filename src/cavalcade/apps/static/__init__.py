"""Files that a worker serves without the app."""
