// This file lets functions be declared that have their body in package runtime.
