"""mneme: what a fine-tune did to a language model beyond its purpose."""
