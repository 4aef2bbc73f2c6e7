"""Training: objectives, optimisers, and the loop; it knows neither masks nor folders."""
