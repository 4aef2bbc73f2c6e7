"""From raw files to a prepared benchmark folder."""
