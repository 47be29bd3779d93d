"""What happens, in order: recipes.py first, then one file per verb."""
