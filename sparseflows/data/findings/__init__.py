"""What is found about rows before any training that would make their likelihood mean little."""
