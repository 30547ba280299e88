"""What two or more of the tasks share: data, augmentation, models, the training loop, evaluation, plots and tables."""
