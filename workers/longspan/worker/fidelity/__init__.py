"""What an attention policy costs a checkpoint in accuracy, measured on the engine itself."""
