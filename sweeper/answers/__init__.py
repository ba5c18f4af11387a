"""Answers: fronts, the best and their explanation, made from records alone."""
