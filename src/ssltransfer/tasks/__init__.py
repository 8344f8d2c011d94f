"""What is trained: pretext tasks, distillation methods and supervised classification."""
