terraform {
  required_version = ">= 1.5"

  required_providers {
    google = {
      source = "hashicorp/google"
      # From 7.19 on the plugin has `poll_interval`, which `../provider.tf` sets.
      version = ">= 7.19, < 9.0"
    }
  }
}
