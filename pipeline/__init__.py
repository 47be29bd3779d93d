"""What happens, in order: recipes.py first, then a room per step."""
