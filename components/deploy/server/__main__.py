from kfp_image_classification.components.deploy.server.server import main

main()
