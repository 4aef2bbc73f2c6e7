"""What is measured: the table of works, and one module for each kind."""
