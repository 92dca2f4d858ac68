"""What makes commands of it: arguments, errors as one line, several seeds as one job."""
