"""Tables written as text: separators, decimal marks, headers and index columns as they are found in files."""
