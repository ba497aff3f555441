"""The proto package `nri.pkg.api.v1alpha1`."""
