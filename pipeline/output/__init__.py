"""How `pipeline.files` makes a product: in a folder of its own, with proof that every byte arrived."""
