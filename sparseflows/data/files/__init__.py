"""Files as users have them: text, archives, containers, streams."""
