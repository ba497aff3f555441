"""What all containers, images and volumes of a namespace take, and what of it nothing needs."""
