"""MLflow's runs: costs, datasets, pictures, scores."""
