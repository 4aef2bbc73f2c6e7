"""Tables as text, CSV, Markdown, LaTeX and HTML."""
