"""Maps of single columns that the flow sees its rows through, with their slopes."""
