"""What is wrong with footage that is not whole: damaged, protected, or refused by its decoder."""
