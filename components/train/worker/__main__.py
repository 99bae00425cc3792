from kfp_image_classification.components.train.worker.worker import main

main()
