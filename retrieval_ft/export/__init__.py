"""Export: a trained model in the layout that the stacks people already run can load."""
