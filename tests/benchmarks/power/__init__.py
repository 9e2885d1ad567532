"""What budgets of watts are worth, measured."""
