terraform {
  required_version = ">= 1.5"

  required_providers {
    aws = {
      source = "hashicorp/aws"
      # From 6.0 on the plugin keeps user data in clear in the state of `aws/wave`; 5 keeps its SHA-1.
      version = ">= 5.80, < 6.0"
    }
  }
}
