"""What any DVC + MLflow project could lift out."""
