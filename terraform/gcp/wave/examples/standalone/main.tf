# Two machines in a network of their own, reached from one address. The project and the credentials
# are those of the Google plugin (GOOGLE_PROJECT, gcloud auth application-default login):
#   terraform init && terraform apply -var ssh_from=192.0.2.7/32 -var zone=us-central1-a

terraform {
  required_version = ">= 1.5"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 7.19, < 9.0"
    }
  }
}

variable "ssh_from" {
  description = "Your own address, in CIDR notation."
  type        = string
}

variable "image" {
  description = "The path of an image with cloud-init."
  type        = string
  default     = "projects/ubuntu-os-cloud/global/images/family/ubuntu-2404-lts-amd64"
}

variable "zone" {
  description = "The zone of both machines."
  type        = string
}

variable "public_key" {
  description = "The file of your public SSH key."
  type        = string
  default     = "~/.ssh/id_ed25519.pub"
}

provider "google" {
  poll_interval = "4s"
}

module "envelope" {
  source         = "../../../envelope"
  deployment     = "demo"
  ssh_from       = [var.ssh_from]
  zones          = [var.zone]
  public_address = true
}

module "wave" {
  source     = "../.."
  deployment = "demo"
  wave       = "first"
  envelope   = module.envelope.envelope

  machines = {
    for uid, market in { "00000000000a" = "on-demand", "00000000000b" = "spot" } : uid => {
      image                             = var.image
      instance_type                     = "e2-small"
      zone                              = var.zone
      market                            = market
      expires                           = "2030-01-31T12:00:00Z"
      run_seconds                       = 3600
      tags                              = { tango-deployment = "demo" }
    }
  }

  user_data = {
    for uid in ["00000000000a", "00000000000b"] :
    uid => "#cloud-config\n${jsonencode({ ssh_authorized_keys = [trimspace(file(pathexpand(var.public_key)))] })}"
  }
}

output "machines" {
  description = "Where to log in."
  value       = module.wave.machines
}
