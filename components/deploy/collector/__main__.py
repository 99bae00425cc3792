from kfp_image_classification.components.deploy.collector.collector import main

main()
