"""What two or more of the tasks share: data, augmentation, models, the training loop, evaluation, figures and tables."""
