"""Tables: in memory, mapped from disk, bundled."""
