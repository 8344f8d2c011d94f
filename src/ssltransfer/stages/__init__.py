"""The stages: each a function of its spec and inputs; they meet through files and never import each other."""
